"""Training and simulation, each a generator of typed events that the API, the command line and the lab consume."""
