//! Exact wire types of the OpenAI API, used by our server and our client; never stored.
