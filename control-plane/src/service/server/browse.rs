//! The filters of the marketplace. Every value is checked. A server about which a filter's fact is not
//! known does not match it: nobody rents something on a guess.

use crate::{error::ServiceError, store::server::Server};
use std::collections::BTreeMap;

const RAM_TYPES: &[&str] = &["DDR3", "DDR4", "DDR5", "ECC DDR4", "ECC DDR5"];
const DISK_TYPES: &[&str] = &["HDD", "SSD", "NVMe", "SAS"];
const CATEGORIES: &[&str] = &["compute", "memory", "storage", "general", "gpu"];
const CPU_SCORES: &[&str] = &["passmark", "geekbench_single", "geekbench_multi"];
const GB: f64 = 1e9;
const MILLIS_PER_CORE: f64 = 1e3;

/// What is looked for.
#[derive(Debug, Default, PartialEq)]
pub struct Filter {
    country: Option<String>,
    region: Option<String>,
    min_cores: Option<f64>,
    min_ram_gb: Option<f64>,
    min_storage_gb: Option<f64>,
    /// A filter on something that no server's agent measures: prices, benchmark scores, traffic.
    unknown_fact: bool,
}

impl Filter {
    /// Checks the parameters of a request. Lists are repeated parameters or separated by commas.
    pub fn parse(pairs: &[(String, String)]) -> Result<Self, ServiceError> {
        let mut filter = Self::default();
        let mut problems = BTreeMap::new();
        for (name, value) in pairs {
            let name = name.strip_suffix("[]").unwrap_or(name);
            if let Err(problem) = filter.add(name, value) {
                problems.insert(name.to_owned(), problem);
            }
        }
        if problems.is_empty() { Ok(filter) } else { Err(ServiceError::Invalid(problems)) }
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "country" => self.country = Some(text(value)?),
            "region" => self.region = Some(text(value)?),
            "min_cpu_cores" => self.min_cores = Some(number(value)?),
            "min_ram_gb" => self.min_ram_gb = Some(number(value)?),
            "min_total_storage_gb" => self.min_storage_gb = Some(number(value)?),
            "max_price_per_day" => {
                number(value)?;
                self.unknown_fact = true;
            }
            "min_cpu_score" | "min_bandwidth_mbps" | "min_traffic_tb" => self.unknown_fact |= number(value)? > 0.0,
            "available_durations" => {
                value.split(',').try_for_each(|days| number(days).map(drop))?;
                self.unknown_fact = true;
            }
            // Says which score min_cpu_score means; filters nothing by itself.
            "cpu_score_type" => one_of(value, CPU_SCORES)?,
            "ram_types" => {
                value.split(',').try_for_each(|word| one_of(word, RAM_TYPES))?;
                self.unknown_fact = true;
            }
            "disk_types" => {
                value.split(',').try_for_each(|word| one_of(word, DISK_TYPES))?;
                self.unknown_fact = true;
            }
            "category" => {
                one_of(value, CATEGORIES)?;
                self.unknown_fact = true;
            }
            "unlimited_traffic_only" | "featured_only" => self.unknown_fact |= flag(value)?,
            _ => {}
        }
        Ok(())
    }

    /// True where the server is what is looked for.
    pub(super) fn accepts(&self, server: &Server) -> bool {
        let is = |wanted: &Option<String>, place: &str| wanted.as_ref().is_none_or(|w| w.eq_ignore_ascii_case(place));
        let at_least = |wanted: Option<f64>, found: f64| wanted.is_none_or(|wanted| found >= wanted);
        !self.unknown_fact
            && is(&self.country, &server.place.country)
            && is(&self.region, &server.place.region)
            && at_least(self.min_cores, server.capacity.cpu_millis as f64 / MILLIS_PER_CORE)
            && at_least(self.min_ram_gb, server.capacity.memory_bytes as f64 / GB)
            && at_least(self.min_storage_gb, server.capacity.disk_bytes as f64 / GB)
    }
}

fn text(value: &str) -> Result<String, String> {
    if value.is_empty() || value.len() > 128 {
        Err("must be 1 to 128 characters".to_owned())
    } else {
        Ok(value.to_owned())
    }
}

fn number(value: &str) -> Result<f64, String> {
    let parsed = value.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    parsed.ok_or_else(|| "must be a number from 0".to_owned())
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn one_of(value: &str, allowed: &[&str]) -> Result<(), String> {
    if allowed.contains(&value) { Ok(()) } else { Err(format!("must be one of {}", allowed.join(", "))) }
}
