"""The report of a run: on a pull request, as a step summary, as JUnit."""
