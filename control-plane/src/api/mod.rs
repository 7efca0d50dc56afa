//! Routes, request and response types; nothing else.
