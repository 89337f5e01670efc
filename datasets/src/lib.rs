//! Examples: question and answer in, training rows out.
