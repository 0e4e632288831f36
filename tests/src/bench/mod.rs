//! What `make bench` and `make soak` measure.

pub mod random;

pub mod arrivals;
pub mod model;
pub mod workload;

pub mod stream;
pub mod usage;

pub mod direct;
pub mod direct_process;
pub mod pipeline;
pub mod pipeline_report;

pub mod limits;

pub mod engine;
pub mod engine_report;

pub mod echo;
pub mod echo_report;

pub mod vision;

pub mod answers;
pub mod exactness;
pub mod exactness_report;
pub mod overload;

pub mod growth;
pub mod soak;
pub mod soak_load;

pub mod spread;
pub mod table;
