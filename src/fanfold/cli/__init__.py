"""The command line: verbs over the library, which own no mathematics."""
