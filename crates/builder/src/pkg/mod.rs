//! Packages: recipes and Debian archives to OCI images.
