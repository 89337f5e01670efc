//! Scripted model server over real sockets, and fixtures; for tests only.
