"""Run a spec's commands in namespaces of this host's kernel, in place of the appliance."""
