"""What knows nothing of estimation: units, noise, domains of quantities, tables, files, streams of draws, threads."""
