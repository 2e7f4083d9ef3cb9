//! Tests of what is carried.
