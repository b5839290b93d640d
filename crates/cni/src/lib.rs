//! The CNI plugin and the daemon of each node: pods are captured without NET_ADMIN of their own.
