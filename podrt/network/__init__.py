"""The built-in network of Pods: a bridge, addresses, host ports, names, and port forwarding."""
