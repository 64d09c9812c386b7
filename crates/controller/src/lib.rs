//! The fleet: device API, operator API, database, web pages.
