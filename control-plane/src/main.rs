//! The control plane's program. Everything is in the library; see [`hoody_control_plane::cli`].

fn main() -> std::process::ExitCode {
    hoody_control_plane::cli::run()
}
