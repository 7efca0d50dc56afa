//! Placement of containers on servers.
