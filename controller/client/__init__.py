"""The other side of the REST API and the broker: what commands, the demo and tests speak to a controller with."""
