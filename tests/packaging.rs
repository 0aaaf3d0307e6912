//! The image, the compose file and the IoT Edge deployment agree with the program and with each other: ports, paths,
//! users, variables. What a container engine does with them is not tested here.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what cannot be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use waystation::{admin, store, telemetry};

/// The data port of the container and the port of the gateway that devices use, as Connected Cache has them.
const DATA_PORT: u16 = 8081;
const GATEWAY_PORT: u16 = 80;
/// The user of the image.
const USER: &str = "10001:10001";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json(path: &str) -> Value {
    serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> serde_yaml::Value {
    serde_yaml::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One instruction of a Dockerfile: its name and the rest of its lines, joined.
#[derive(Debug)]
struct Instruction {
    name: String,
    rest: String,
}

/// The stages of the Dockerfile; what stands before the first one is stage 0.
fn stages() -> Vec<Vec<Instruction>> {
    let mut stages = vec![Vec::new()];
    let mut open: Option<String> = None;
    for line in text("docker/Dockerfile").lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut whole = open.take().map_or_else(String::new, |begin| begin + " ");
        if let Some(begin) = line.strip_suffix('\\') {
            open = Some(whole + begin.trim_end());
            continue;
        }
        whole.push_str(line);
        let (name, rest) = whole.split_once(' ').unwrap_or_else(|| panic!("an instruction without a value: {whole}"));
        if name == "FROM" {
            stages.push(Vec::new());
        }
        stages.last_mut().unwrap().push(Instruction { name: name.to_owned(), rest: rest.trim().to_owned() });
    }
    assert_eq!(open, None, "the last line is continued");
    stages
}

/// The value of the one instruction with this name in the final stage.
fn in_image(name: &str) -> String {
    let stages = stages();
    let found: Vec<&Instruction> = stages.last().unwrap().iter().filter(|i| i.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in the final stage: {found:?}");
    found[0].rest.clone()
}

/// A value in exec form.
fn exec_form(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text} is not in exec form: {error}"))
}

fn exposed() -> BTreeSet<u16> {
    in_image("EXPOSE").split_whitespace().map(|port| port.parse().unwrap()).collect()
}

fn volume() -> PathBuf {
    let volumes = exec_form(&in_image("VOLUME"));
    assert_eq!(volumes.len(), 1);
    PathBuf::from(&volumes[0])
}

/// The cache in a deployment manifest or template.
fn module(manifest: &Value) -> &Value {
    let module = &manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]["waystation"];
    assert!(module.is_object(), "there is no module `waystation`");
    module
}

fn manifest() -> Value {
    json("edge-module/deployment.single-gateway.json")
}

fn create_options(module: &Value) -> Value {
    serde_json::from_str(module["settings"]["createOptions"].as_str().expect("createOptions is a string")).unwrap()
}

fn environment(module: &Value) -> BTreeMap<String, String> {
    let variables = module["env"].as_object().unwrap().iter();
    variables.map(|(name, value)| (name.clone(), value["value"].as_str().unwrap().to_owned())).collect()
}

/// The host directory and the directory in the container of each bind.
fn binds(options: &Value) -> Vec<(String, PathBuf)> {
    let binds = options["HostConfig"]["Binds"].as_array().unwrap().iter();
    let parts = binds.map(|bind| bind.as_str().unwrap().split_once(':').unwrap());
    parts.map(|(host, container)| (host.to_owned(), PathBuf::from(container))).collect()
}

#[test]
fn the_image_is_built_with_the_declared_toolchain_and_ends_without_a_shell() {
    let stages = stages();
    let manifest = text("Cargo.toml");
    let declared = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(stages[0].iter().any(|i| i.name == "ARG" && i.rest == format!("RUST_VERSION={declared}")), "{declared}");
    assert_eq!(stages.len(), 3, "arguments, the build, the image");
    assert!(stages[1][0].rest.ends_with(" AS build"), "{:?}", stages[1][0]);
    let last = stages.last().unwrap();
    assert!(!last[0].rest.contains(" AS "), "the image is the last stage");
    for instruction in last {
        assert!(!matches!(instruction.name.as_str(), "RUN" | "SHELL" | "ADD"), "{instruction:?}");
        // Variables of the image would go before a file that somebody mounts, and before those of Connected Cache.
        assert_ne!(instruction.name, "ENV", "{instruction:?}");
    }
}

#[test]
fn the_image_starts_and_probes_the_program_that_it_holds() {
    let stages = stages();
    let copied: Vec<Vec<&str>> = stages
        .last()
        .unwrap()
        .iter()
        .filter(|instruction| instruction.name == "COPY")
        .map(|instruction| instruction.rest.split_whitespace().filter(|word| !word.starts_with("--")).collect())
        .collect();
    let program = exec_form(&in_image("ENTRYPOINT"));
    assert_eq!(program.len(), 1);
    assert!(copied.iter().any(|words| words.last() == Some(&program[0].as_str())), "{copied:?}");
    assert_eq!(exec_form(&in_image("CMD")), ["run"]);
    let health = in_image("HEALTHCHECK");
    let (_, command) = health.split_once("CMD ").unwrap();
    assert_eq!(exec_form(command), [program[0].as_str(), "healthcheck"]);
    assert_eq!(in_image("STOPSIGNAL"), "SIGTERM");
}

#[test]
fn the_image_runs_as_an_ordinary_user_who_owns_its_volume() {
    assert_eq!(in_image("USER"), USER);
    let volume = volume();
    let stages = stages();
    let owned = format!("--chown={USER}");
    assert!(stages.last().unwrap().iter().any(|i| {
        i.name == "COPY" && i.rest.contains(&owned) && i.rest.ends_with(&format!(" {}", volume.display()))
    }));
    let defaults = store::Settings::default();
    let paths = defaults.drives.iter().map(|drive| &drive.path).chain([&defaults.state]);
    for path in paths {
        let path: PathBuf = Path::new(&in_image("WORKDIR")).join(path).components().collect();
        assert!(path.starts_with(&volume), "{} is outside of {}", path.display(), volume.display());
    }
}

#[test]
fn the_image_exposes_the_ports_of_the_program() {
    assert_eq!(exposed(), BTreeSet::from([DATA_PORT, admin::DEFAULT_PORT]));
    assert!(exposed().iter().all(|&port| port >= 1024), "a user without capabilities cannot listen there");
}

#[test]
fn the_compose_file_publishes_the_ports_and_keeps_what_the_image_stores() {
    let compose = yaml("docker/compose.yaml");
    let cache = &compose["services"]["cache"];
    let ports: Vec<&str> = cache["ports"].as_sequence().unwrap().iter().map(|port| port.as_str().unwrap()).collect();
    assert_eq!(
        ports,
        [format!("{DATA_PORT}:{DATA_PORT}"), format!("127.0.0.1:{0}:{0}", admin::DEFAULT_PORT)],
        "devices reach the data port, this machine the admin port"
    );
    let volumes: Vec<&str> =
        cache["volumes"].as_sequence().unwrap().iter().map(|volume| volume.as_str().unwrap()).collect();
    let kept = format!(":{}", volume().display());
    assert!(volumes.iter().any(|volume| volume.ends_with(&kept)), "{volumes:?}");
    let settings = cache["environment"]["WAYSTATION_CONFIG"].as_str().unwrap();
    assert!(volumes.contains(&format!("./waystation.yaml:{settings}:ro").as_str()), "{volumes:?}");
    assert_eq!(cache["build"]["dockerfile"], "docker/Dockerfile");
    assert!(root().join("docker").join(cache["build"]["context"].as_str().unwrap()).join("Cargo.toml").exists());
}

#[test]
fn the_compose_file_takes_away_what_is_not_needed() {
    let compose = yaml("docker/compose.yaml");
    for name in ["cache", "origin"] {
        let service = &compose["services"][name];
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        assert!(service["mem_limit"].is_string(), "{name}");
        assert!(service["privileged"].is_null() && service["cap_add"].is_null() && service["user"].is_null(), "{name}");
    }
    let origin = &compose["services"]["origin"];
    assert!(origin["ports"].is_null(), "the origin is reached through the cache alone");
    let networks = origin["networks"].as_sequence().unwrap();
    assert!(networks.iter().all(|network| compose["networks"][network]["internal"] == true), "{networks:?}");
}

#[test]
fn the_compose_files_origin_is_the_one_in_its_settings() {
    let (compose, settings) = (yaml("docker/compose.yaml"), yaml("docker/waystation.yaml"));
    let rule = &settings["origins"][0];
    let (container, _) = rule["address"].as_str().unwrap().split_once(':').unwrap();
    assert!(compose["services"][container].is_mapping(), "{container}");
    assert_eq!(rule["allow_private"], true, "container networks have private addresses");
    let shown = text("docker/compose.yaml");
    assert!(shown.contains(&format!("cacheHostOrigin={}", rule["host"].as_str().unwrap())));
}

#[test]
fn the_module_is_built_from_the_image_in_this_version_for_each_platform() {
    let module = json("edge-module/module.json");
    let image = &module["image"];
    assert_eq!(image["tag"]["version"], env!("CARGO_PKG_VERSION"));
    let directory = root().join("edge-module");
    assert!(directory.join(image["contextPath"].as_str().unwrap()).join("Cargo.toml").exists());
    let platforms = image["tag"]["platforms"].as_object().unwrap();
    let names: BTreeSet<&str> = platforms.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["amd64", "arm32v7", "arm64v8"]));
    for file in platforms.values() {
        assert!(directory.join(file.as_str().unwrap()).exists(), "{file}");
    }
    let build = &stages()[1];
    for branch in ["amd64*)", "arm64*)", "armv7)"] {
        assert!(build.iter().any(|i| i.name == "RUN" && i.rest.contains(branch)), "{branch}");
    }
    let tag = format!("waystation:{}-amd64", env!("CARGO_PKG_VERSION"));
    assert!(self::module(&manifest())["settings"]["image"].as_str().unwrap().ends_with(&tag));
}

#[test]
fn the_template_makes_the_manifest() {
    let mut made = json("edge-module/deployment.template.json");
    made.as_object_mut().unwrap().remove("$schema-template").unwrap();
    let manifest = manifest();
    let desired = |manifest: &Value| manifest["modulesContent"]["$edgeAgent"]["properties.desired"].clone();
    let (from, to) = (desired(&made), desired(&manifest));
    for (kind, name) in [("systemModules", "edgeAgent"), ("systemModules", "edgeHub"), ("modules", "waystation")] {
        let options = &from[kind][name]["settings"]["createOptions"];
        assert!(options.is_object(), "{name}");
        assert_eq!(*options, create_options(&to[kind][name]), "{name}");
    }
    assert!(from["modules"]["waystation"]["settings"]["image"].as_str().unwrap().starts_with("${MODULEDIR<"));
    for field in ["env", "restartPolicy", "startupOrder", "status", "type", "version", "imagePullPolicy"] {
        assert_eq!(from["modules"]["waystation"][field], to["modules"]["waystation"][field], "{field}");
    }
    let hub = "$edgeHub";
    assert_eq!(made["modulesContent"][hub], manifest["modulesContent"][hub]);
}

#[test]
fn the_module_starts_again_and_is_bounded() {
    let manifest = manifest();
    let module = module(&manifest);
    assert_eq!(module["restartPolicy"], "always");
    let raw = module["settings"]["createOptions"].as_str().unwrap();
    assert!(raw.len() <= 512, "{} bytes: portals split it", raw.len());
    let options = &create_options(module)["HostConfig"];
    assert!(options["Memory"].as_u64().unwrap() >= 256 * 1024 * 1024);
    assert_eq!(options["LogConfig"]["Type"], "json-file");
    assert!(
        options["LogConfig"]["Config"]["max-size"].is_string()
            && options["LogConfig"]["Config"]["max-file"].is_string()
    );
    assert_eq!(options["CapDrop"][0], "ALL");
    assert_eq!(options["ReadonlyRootfs"], true);
    assert!(options["Privileged"].is_null() && options["CapAdd"].is_null());
}

#[test]
fn the_modules_ports_are_those_of_connected_cache() {
    let manifest = manifest();
    let options = create_options(module(&manifest));
    let bindings = options["HostConfig"]["PortBindings"].as_object().unwrap();
    let gateway = |port: u16| &bindings[&format!("{port}/tcp")][0];
    assert_eq!(bindings.len(), 2);
    assert_eq!(gateway(DATA_PORT)["HostPort"], GATEWAY_PORT.to_string());
    assert!(gateway(DATA_PORT)["HostIp"].is_null(), "devices come from outside");
    assert_eq!(gateway(admin::DEFAULT_PORT)["HostPort"], admin::DEFAULT_PORT.to_string());
    assert_eq!(gateway(admin::DEFAULT_PORT)["HostIp"], "127.0.0.1");
    // edgeHub stands on the same machine.
    let hub = &manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["systemModules"]["edgeHub"];
    let taken = create_options(hub)["HostConfig"]["PortBindings"].clone();
    for binding in taken.as_object().unwrap().values() {
        assert!(bindings.values().all(|own| own[0]["HostPort"] != binding[0]["HostPort"]), "{binding}");
    }
}

#[test]
fn each_storage_variable_of_the_module_has_its_bind() {
    let manifest = manifest();
    let module = module(&manifest);
    let (variables, binds) = (environment(module), binds(&create_options(module)));
    let drives: Vec<(&str, &str)> = variables
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("STORAGE_")?.strip_suffix("_SIZE_GB")?, value.as_str())))
        .collect();
    assert_eq!(drives.len(), binds.len());
    for (number, size) in drives {
        assert!(size.parse::<u32>().unwrap() >= 10, "Connected Cache takes no less than 10 GB");
        let path = PathBuf::from(format!("/nginx/cache{number}"));
        assert!(binds.iter().any(|(_, container)| *container == path), "{} is not bound", path.display());
    }
    let format = &variables["WAYSTATION_LOG__FORMAT"];
    assert_eq!(format.parse(), Ok(telemetry::LogFormat::IotEdge));
}

#[test]
fn the_guide_gives_the_bound_directory_to_the_user_of_the_image() {
    let guide = text("edge-module/README.md");
    let manifest = manifest();
    for (host, _) in binds(&create_options(module(&manifest))) {
        let host = host.trim_end_matches('/');
        assert!(guide.contains(&format!("mkdir -p {host}\n")), "{host}");
        assert!(guide.contains(&format!("chown -R {USER} {host}\n")), "{host}");
    }
    for port in [DATA_PORT, GATEWAY_PORT, admin::DEFAULT_PORT] {
        assert!(guide.contains(&format!("| {port}")), "{port}");
    }
}
