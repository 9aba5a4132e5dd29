"""The local endpoint: programs on the device ask its models by HTTP on loopback, past the controller and its broker."""
