"""Plan, build, publish, rebuild: what both CIs and a person run."""
