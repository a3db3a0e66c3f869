//! What a service may use and how it is replaced: `deploy`, and the older keys that say the same.

use crate::compose::fields::Fields;
use crate::compose::model::{DeviceRequest, FailureAction, Resources, Restart, UpdateConfig};
use crate::compose::node::{Findings, Node, Place};
use crate::compose::values;

const SWARM: &str = "it is Swarm's, and a device is no Swarm";

/// What `deploy` says beside the resources.
pub(super) struct Deploy {
    pub(super) replicas: u32,
    pub(super) update: UpdateConfig,
    pub(super) restart: Restart,
}

/// Reads `deploy`, `scale`, `restart` and every limit.
pub(super) fn deploy(service: &Fields<'_>) -> (Deploy, Resources) {
    let mut resources = older(service);
    let scale = service.integer("scale");
    let restart = service.parse("restart", restart);
    let mut deployed = Deploy { replicas: 1, update: UpdateConfig::default(), restart: restart.unwrap_or_default() };
    if let Some(deploy) = service.map("deploy") {
        deploy.parse("mode", |mode| match mode {
            "replicated" | "" => Ok(()),
            _ => Err(format!("{mode:?} can't be honoured: expected replicated; other modes are Swarm's")),
        });
        deploy.refuse("endpoint_mode", SWARM, "leave it out: services find each other by name");
        deploy.refuse("placement", SWARM, "choose devices by a group's selector");
        deploy.refuse(
            "labels",
            "they are for an object of Swarm's, not for containers",
            "put them under the service's labels:",
        );
        deploy.refuse(
            "rollback_config",
            "burgee goes back with the whole revision",
            "see onFailure in app.yaml, and update_config.failure_action",
        );
        if let Some(update) = deploy.map("update_config") {
            deployed.update = update_config(&update);
            update.finish();
        }
        if let Some(policy) = deploy.map("restart_policy") {
            if let (Some(_), Some(entry)) = (service.node("restart"), deploy.entry("restart_policy")) {
                deploy.error("restart_policy", &entry.at, "restart is given, too: expected one of them");
            }
            deployed.restart = restart_policy(&policy);
            policy.finish();
        }
        if let Some(limits) = deploy.map("resources") {
            limit(&limits, &mut resources, service.findings);
            limits.finish();
        }
        let replicas = deploy.integer("replicas");
        if let (Some(scale), Some(replicas), Some(entry)) = (scale, replicas, deploy.entry("replicas"))
            && scale != replicas
        {
            deploy.error("replicas", &entry.node.at, &format!("scale says {scale}: expected the same"));
        }
        deployed.replicas = replicas.unwrap_or(1);
        deploy.finish();
    }
    if let Some(scale) = scale {
        deployed.replicas = scale;
    }
    (deployed, resources)
}

/// `no`, `always`, `unless-stopped`, `on-failure[:RETRIES]`.
fn restart(text: &str) -> Result<Restart, String> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("no" | "", "") => Ok(Restart::No),
        ("always", "") => Ok(Restart::Always),
        ("unless-stopped", "") => Ok(Restart::UnlessStopped),
        ("on-failure", "") => Ok(Restart::OnFailure { max_retries: None }),
        ("on-failure", retries) => Ok(Restart::OnFailure { max_retries: Some(values::integer(retries)?) }),
        _ => Err(format!("{text:?} is not known: expected \"no\", always, unless-stopped or on-failure[:RETRIES]")),
    }
}

fn restart_policy(policy: &Fields<'_>) -> Restart {
    let hint = "leave it out: the Engine waits longer each time by itself";
    policy.refuse("delay", "an Engine has no such setting", hint);
    policy.refuse("window", "an Engine has no such setting", hint);
    let attempts: Option<u32> = policy.integer("max_attempts");
    let read = policy.parse("condition", |condition| match condition {
        "none" | "no" => Ok(Restart::No),
        "any" | "always" | "" => Ok(Restart::Always),
        "unless-stopped" => Ok(Restart::UnlessStopped),
        "on-failure" => Ok(Restart::OnFailure { max_retries: attempts }),
        _ => Err(format!("{condition:?} is not known: expected none, on-failure or any")),
    });
    let restart = read.unwrap_or(Restart::Always);
    if let (Some(entry), false) = (policy.entry("max_attempts"), matches!(restart, Restart::OnFailure { .. })) {
        policy.error("max_attempts", &entry.at, "an Engine counts attempts with condition on-failure only");
    }
    restart
}

fn update_config(update: &Fields<'_>) -> UpdateConfig {
    update.refuse(
        "max_failure_ratio",
        "one container that fails is a failure",
        "choose failure_action: continue to go on all the same",
    );
    let order = update.parse("order", |order| match order {
        "start-first" => Ok(true),
        "stop-first" => Ok(false),
        _ => Err(format!("{order:?} is not known: expected start-first or stop-first")),
    });
    let action = update.parse("failure_action", |action| match action {
        "pause" => Ok(FailureAction::Pause),
        "continue" => Ok(FailureAction::Continue),
        "rollback" => Ok(FailureAction::Rollback),
        _ => Err(format!("{action:?} is not known: expected pause, continue or rollback")),
    });
    UpdateConfig {
        start_first: order.unwrap_or_default(),
        monitor_ms: update.millis("monitor"),
        failure_action: action.unwrap_or_default(),
        parallelism: update.integer("parallelism"),
        delay_ms: update.millis("delay"),
    }
}

fn limit(fields: &Fields<'_>, resources: &mut Resources, findings: &Findings) {
    if let Some(limits) = fields.map("limits") {
        once(&limits, "cpus", limits.parse("cpus", values::nano_cpus), &mut resources.nano_cpus, "cpus");
        once(&limits, "memory", limits.bytes("memory"), &mut resources.memory, "mem_limit");
        once(&limits, "pids", limits.integer("pids"), &mut resources.pids, "pids_limit");
        limits.finish();
    }
    if let Some(reserved) = fields.map("reservations") {
        let memory = reserved.bytes("memory");
        once(&reserved, "memory", memory, &mut resources.memory_reservation, "mem_reservation");
        reserved.ignore("cpus", "an Engine reserves no processors; limits.cpus limits them");
        reserved.refuse("generic_resources", SWARM, "leave it out");
        for item in reserved.list("devices") {
            if let Some(device) = Fields::of(reserved.path("devices"), item, findings) {
                if device.node("capabilities").is_none() {
                    device.error("capabilities", &item.at, "is missing");
                }
                resources.gpus.extend(request(&device, &item.at, false));
                device.finish();
            }
        }
        reserved.finish();
    }
}

/// Puts a value where an older key may already have put the same.
fn once(fields: &Fields<'_>, key: &str, new: Option<i64>, slot: &mut Option<i64>, older: &str) {
    let Some(new) = new else { return };
    if let (Some(old), Some(entry)) = (*slot, fields.entry(key))
        && old != new
    {
        fields.error(key, &entry.node.at, &format!("{older} says something else: expected the same, or one of them"));
    }
    *slot = Some(new);
}

/// The keys of a service that say what `deploy.resources` says, and those that have no other place.
fn older(service: &Fields<'_>) -> Resources {
    let windows = "it is for Windows containers";
    service.refuse("cpu_count", windows, "use cpus");
    service.refuse("cpu_percent", windows, "use cpus");
    let mut resources = Resources {
        nano_cpus: service.parse("cpus", values::nano_cpus),
        cpu_shares: service.integer("cpu_shares"),
        cpu_period: service.parse("cpu_period", values::micros),
        cpu_quota: service.parse("cpu_quota", values::micros),
        cpu_rt_period: service.parse("cpu_rt_period", values::micros),
        cpu_rt_runtime: service.parse("cpu_rt_runtime", values::micros),
        cpuset: service.text("cpuset"),
        memory: service.bytes("mem_limit"),
        memory_reservation: service.bytes("mem_reservation"),
        memory_swap: service.parse("memswap_limit", |text| if text == "-1" { Ok(-1) } else { values::bytes(text) }),
        memory_swappiness: service.parse("mem_swappiness", |text| match values::integer(text)? {
            percent @ 0..=100 => Ok(percent),
            _ => Err(format!("{text:?} is not a number from 0 to 100")),
        }),
        pids: service.integer("pids_limit"),
        ..Resources::default()
    };
    if let Some(blkio) = service.map("blkio_config") {
        resources.blkio_weight = blkio.parse("weight", weight);
        let rates = |key, value, parse: fn(&str) -> Result<i64, String>| by_path(&blkio, key, value, parse);
        resources.blkio_weight_device = rates("weight_device", "weight", |text| weight(text).map(i64::from));
        resources.device_read_bps = rates("device_read_bps", "rate", values::bytes);
        resources.device_write_bps = rates("device_write_bps", "rate", values::bytes);
        resources.device_read_iops = rates("device_read_iops", "rate", values::integer);
        resources.device_write_iops = rates("device_write_iops", "rate", values::integer);
        blkio.finish();
    }
    match service.node("gpus") {
        Some(node) if node.scalar().is_some() => {
            let all = service.parse("gpus", |text| match text {
                "all" => Ok(DeviceRequest {
                    count: Some(-1),
                    capabilities: vec!["gpu".to_owned()],
                    ..DeviceRequest::default()
                }),
                _ => Err(format!("{text:?} is not known: expected all, or a list")),
            });
            resources.gpus.extend(all);
        }
        _ => {
            for item in service.list("gpus") {
                if let Some(device) = Fields::of(service.path("gpus"), item, service.findings) {
                    resources.gpus.extend(request(&device, &item.at, true));
                    device.finish();
                }
            }
        }
    }
    resources
}

fn weight(text: &str) -> Result<u16, String> {
    match values::integer(text)? {
        weight @ (0 | 10..=1000) => Ok(weight),
        _ => Err(format!("{text:?} is not a weight: expected 10 to 1000, or 0 for none")),
    }
}

fn by_path(blkio: &Fields<'_>, key: &str, value: &str, parse: fn(&str) -> Result<i64, String>) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for item in blkio.list(key) {
        let Some(fields) = Fields::of(blkio.path(key), item, blkio.findings) else { continue };
        match (present(&fields, "path", item), present(&fields, value, item)) {
            (true, true) => found.extend(fields.text("path").zip(fields.parse(value, parse))),
            _ => drop(fields.rest()),
        }
        fields.finish();
    }
    found
}

fn present(fields: &Fields<'_>, key: &str, item: &Node) -> bool {
    let present = fields.node(key).is_some();
    if !present {
        fields.error(key, &item.at, "is missing");
    }
    present
}

/// One request for devices; `gpu` says that the capability goes without saying.
fn request(device: &Fields<'_>, at: &Place, gpu: bool) -> Option<DeviceRequest> {
    let mut request = DeviceRequest {
        driver: device.text("driver"),
        count: device.parse("count", |text| if text == "all" { Ok(-1) } else { values::integer(text) }),
        device_ids: device.texts("device_ids"),
        capabilities: device.texts("capabilities"),
        options: device.texts_by_name("options"),
    };
    if request.count.is_some() && !request.device_ids.is_empty() {
        device.error("count", at, "device_ids is given, too: expected one of them");
        return None;
    }
    if request.count.is_none() && request.device_ids.is_empty() {
        request.count = Some(-1);
    }
    if gpu && !request.capabilities.iter().any(|capability| capability == "gpu") {
        request.capabilities.push("gpu".to_owned());
    }
    Some(request)
}
