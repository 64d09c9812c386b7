//! The EVE API: protobuf messages, envelope, logs, conversion to and from `model`.
