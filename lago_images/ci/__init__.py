"""The jobs that CI runs: GitHub Actions, Jenkins, and the report on a pull request."""
