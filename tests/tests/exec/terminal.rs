//! Terminals: what is typed and shown, and that connections come and go without a byte lost or doubled.

use crate::{
    World,
    client::{Came, PATIENCE, Terminal, processes},
};
use anyhow::{Context, Result};
use hoody_tests::wait;
use serde_json::{Value, json};

/// Lines of the output that is followed through broken connections.
const LINES: usize = 20_000;

/// The last line was shown, and perhaps a prompt behind it.
fn is_over(shown: &[u8]) -> bool {
    String::from_utf8_lossy(&shown[shown.len().saturating_sub(64)..]).contains("the-52-end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_goes_on_when_its_client_comes_back() -> Result<()> {
    let mut world = World::new().await?;
    let token = world.api.token.clone().context("token")?;
    let path = world.path("terminal");
    let at = |terminal: &Terminal, more: &str| {
        format!("{path}?terminal_id={}&after={}{more}", terminal.id, terminal.position)
    };

    // Its size, from the beginning and when it changes.
    let mut terminal = Terminal::open(&world.cluster, &token, &format!("{path}?columns=101&rows=33")).await?;
    terminal.send("stty size; echo at-$((40+2))\n").await?;
    let shown = terminal.until("at-42").await?;
    assert!(shown.contains("33 101"), "{shown:?}");
    terminal.tell(json!({ "type": "resize", "columns": 80, "rows": 25 })).await?;
    terminal.tell(json!({ "type": "input", "data": "stty size; echo at-$((42+1))\n" })).await?;
    let shown = terminal.until("at-43").await?;
    assert!(shown.contains("25 80"), "{shown:?}");
    // Ctrl-C.
    terminal.send("sleep 4251; echo at-$((43+1))\n").await?;
    wait::until("it sleeps", PATIENCE, async || Ok((!processes(&["sleep", "4251"]).is_empty()).then_some(()))).await?;
    terminal.send("\x03").await?;
    terminal.send("echo at-$((44+1))\n").await?;
    terminal.until("at-45").await?;

    // More than any buffer between here and there holds is pasted into a program that echoes.
    terminal.send("stty raw -echo; echo rea''dy; head -c 400000 | wc -c; stty sane; echo at-$((45+1))\n").await?;
    terminal.until("ready").await?;
    let paste = "x".repeat(40_000);
    for _ in 0..10 {
        terminal.send(&paste).await?;
    }
    let shown = terminal.until("at-46").await?;
    assert!(shown.contains("400000"), "{}", &shown[shown.len().saturating_sub(200)..]);
    drop(terminal);

    // Connections that break while much is shown.
    let mut terminal = Terminal::open(&world.cluster, &token, &format!("{path}?acknowledge=true")).await?;
    let script = format!(
        "stty -echo; i=0; while test $i -lt {LINES}; do echo line-$i; i=$((i+1)); done; echo the-$((50+2))-end\n"
    );
    terminal.send(&script).await?;
    terminal.until("line-0\r\n").await?;
    let mut all = Vec::new();
    let mut connections = 1;
    loop {
        let before = all.len() + terminal.shown.len();
        while all.len() + terminal.shown.len() < before + 20_000 && !is_over(&terminal.shown) {
            assert!(matches!(terminal.next().await?, Came::Output));
            if connections % 2 == 0 {
                terminal.acknowledge().await?;
            }
        }
        all.extend_from_slice(&terminal.shown);
        if is_over(&all) {
            break;
        }
        let again = at(&terminal, "&acknowledge=true");
        let position = terminal.position;
        // Without a word: the connection is simply gone.
        drop(terminal);
        if connections == 3 {
            world.cluster.control_plane.kill()?;
            world.cluster.control_plane.start().await?;
            world.cluster.wait_online(&world.cluster.servers[0], true).await?;
        }
        terminal = Terminal::open(&world.cluster, &token, &again).await?;
        assert_eq!(terminal.from, position, "nothing is lost");
        connections += 1;
    }
    let all = String::from_utf8(all)?;
    let (_, lines) = all.split_once("line-0\r\n").context("the first line")?;
    let mut lines = lines.lines();
    for number in 1..LINES {
        assert_eq!(lines.next(), Some(format!("line-{number}").as_str()));
    }
    println!("{LINES} lines over {connections} connections");
    assert!(connections > 4);

    // Who connects elsewhere takes over; who opened it alone may; it is listed and ended.
    let mut other = Terminal::open(&world.cluster, &token, &at(&terminal, "")).await?;
    let told = terminal.told().await?;
    assert_eq!((&told["type"], &told["reason"]), (&json!("end"), &json!("taken_over")), "{told}");
    let member = world.cluster.second_tenant("member").await?;
    let user = member.get("/api/v1/users/auth/me").await?.data()?["id"].clone();
    let given = json!({ "user_id": user, "permission_level": "edit" });
    world.api.post(&format!("/api/v1/projects/{}/permissions", world.project), given).await?.data()?;
    let of_member = member.token.clone().context("token")?;
    let refused = Terminal::try_open(&world.cluster, &of_member, &at(&other, "")).await?;
    assert_eq!(refused.err(), Some(404));
    let list = member.get(&world.path("terminals")).await?.data()?;
    let listed: Vec<&Value> = list["terminals"].as_array().context("list")?.iter().collect();
    let mine = listed.iter().find(|it| it["id"] == other.id.as_str()).context("listed")?;
    assert_eq!((&mine["connected"], &mine["program"]), (&json!(true), &json!("/bin/sh")), "{mine}");
    world.api.delete(&format!("{}/{}", world.path("terminals"), other.id), None).await?.expect(200)?;
    let told = other.told().await?;
    assert_eq!(
        (&told["type"], &told["reason"], &told["signal"]),
        (&json!("exit"), &json!("ended"), &json!(9)),
        "{told}"
    );
    world.api.delete(&format!("{}/{}", world.path("terminals"), other.id), None).await?.expect(404)?;

    // The end of the agent ends terminals; the next one says so.
    let mut terminal = Terminal::open(&world.cluster, &token, &path).await?;
    terminal.send("sleep 4252\n").await?;
    wait::until("it sleeps", PATIENCE, async || Ok((!processes(&["sleep", "4252"]).is_empty()).then_some(()))).await?;
    world.cluster.servers[0].kill_agent()?;
    wait::until("it is gone", PATIENCE, async || Ok(processes(&["sleep", "4252"]).is_empty().then_some(()))).await?;
    world.cluster.servers[0].start()?;
    // The new agent's link takes the place of the old one, which nobody has closed.
    let told = terminal.told().await?;
    assert_eq!((&told["type"], &told["reason"]), (&json!("end"), &json!("link_lost")), "{told}");
    world.cluster.wait_online(&world.cluster.servers[0], true).await?;
    assert_eq!(Terminal::try_open(&world.cluster, &token, &at(&terminal, "")).await?.err(), Some(404));

    // Its program's own end.
    let mut terminal = Terminal::open(&world.cluster, &token, &path).await?;
    terminal.send("exit 7\n").await?;
    let told = terminal.told().await?;
    assert_eq!((&told["type"], &told["exit_code"]), (&json!("exit"), &json!(7)), "{told}");
    world.cluster.check_logs()
}
