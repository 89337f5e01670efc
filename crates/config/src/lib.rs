//! Every setting, its default and its documentation.
