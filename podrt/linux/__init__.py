"""The kernel's interface: system calls, namespaces, mounts, cgroups, capabilities, seccomp and netlink."""
