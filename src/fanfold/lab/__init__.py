"""The lab: a page in the browser of this machine in which runs are trained live, compared, resumed and exported.

The server imports no torch. What needs it, trainings, reports and the list of choices, is a process of its own: the
command line for trainings and reports, so that a run of the lab is a run like any other.
"""
