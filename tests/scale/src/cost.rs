//! Processor time and memory of the processes that are measured.

use std::time::Instant;

use anyhow::Result;
use harness::bench::process::{machine_time, processor_time};
use serde::Serialize;

/// Processor time that something took, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Of the contender's leader.
    pub leader: f64,
    /// Of the API server.
    pub api_server: f64,
    /// Of all processes of the machine.
    pub machine: f64,
    /// Wall-clock time over which these were read, in seconds.
    pub seconds: f64,
}

/// Reads processor time from one moment to another.
pub struct Meter {
    api_server: u32,
    begun: Instant,
    before: Cost,
}

impl Meter {
    /// Starts before the leader does.
    ///
    /// # Errors
    /// If the API server has exited.
    pub fn start(api_server: u32) -> Result<Self> {
        Ok(Self {
            api_server,
            begun: Instant::now(),
            before: Cost {
                leader: 0.0,
                api_server: processor_time(api_server)?,
                machine: machine_time()?,
                seconds: 0.0,
            },
        })
    }

    /// Starts while the leader runs.
    ///
    /// # Errors
    /// If the API server or the leader has exited.
    pub fn start_beside(api_server: u32, leader: u32) -> Result<Self> {
        let mut meter = Self::start(api_server)?;
        meter.before.leader = processor_time(leader)?;
        Ok(meter)
    }

    /// The cost so far.
    ///
    /// # Errors
    /// If the API server or the leader has exited.
    pub fn read(&self, leader: u32) -> Result<Cost> {
        Ok(Cost {
            leader: processor_time(leader)? - self.before.leader,
            api_server: processor_time(self.api_server)? - self.before.api_server,
            machine: machine_time()? - self.before.machine,
            seconds: self.begun.elapsed().as_secs_f64(),
        })
    }
}
