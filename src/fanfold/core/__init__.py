"""Tools that know nothing of estimation: units, noise, domains, dtypes, tables, files, streams of draws, threads."""
