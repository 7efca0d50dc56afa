//! Measurements of the node and its containers.
