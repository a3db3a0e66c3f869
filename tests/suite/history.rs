//! Nothing goes backwards by surprise: the accepted head outlives the agent,
//! and only the operator's word, on the device, accepts another history.

use std::time::Duration;

use harness::stage::{Stage, condition};
use harness::wait::never;
use serde_json::Value;

fn refused_as<'a>(reason: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |status| condition(status, "Verified").is_some_and(|it| it["status"] == false && it["reason"] == reason)
}

#[test]
fn a_rewound_head_is_refused_by_an_agent_that_was_restarted() {
    let mut stage = Stage::new();
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    let second = stage.change("two", true);
    stage.device.wait_steady(&second, 20);

    // Rewound while the agent is away; validly signed, and once accepted.
    stage.device.kill();
    stage.repo.git(&["reset", "-q", "--hard", &first]);
    stage.repo.push(&stage.forge.url(), true);
    stage.device.start();
    let status = stage.device.wait("refused", 20, refused_as("Rewound"));
    assert_eq!((&status["phase"], &status["revision"]), (&"steady".into(), &Value::from(second.as_str())));

    // Also without the local repository: the journal alone knows what was accepted.
    stage.device.kill();
    std::fs::remove_dir_all(stage.device.store().join("git")).expect("the local repository");
    stage.device.start();
    stage.device.wait("refused", 20, refused_as("Rewound"));
    // And a newer commit that forks off before it.
    stage.content("fork", true);
    stage.push("fork");
    stage.device.sync();
    stage.device.wait("refused", 20, refused_as("Rewound"));
    never("it goes back", Duration::from_secs(3), || stage.page() != "two\n");

    stage.repo.git(&["reset", "-q", "--hard", &second]);
    let third = stage.change("three", true);
    let status = stage.device.wait_steady(&third, 20);
    assert!(condition(&status, "Verified").is_none(), "{status:#}");
}

#[test]
fn anchor_accepts_another_history_and_is_its_floor() {
    let mut stage = Stage::new();
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);

    // A history that was rewritten on purpose.
    stage.repo.git(&["checkout", "-q", "--orphan", "rewritten"]);
    stage.content("new", true);
    let root = stage.repo.commit("a new beginning");
    stage.content("newer", true);
    let second = stage.repo.commit("and more");
    stage.repo.git(&["branch", "-q", "-M", "main"]);
    stage.repo.push(&stage.forge.url(), true);
    stage.device.sync();
    stage.device.wait("refused", 20, refused_as("Rewound"));
    never("it is taken", Duration::from_secs(2), || stage.page() != "one\n");

    // What is named has to be there, and signed.
    let nowhere = "4f".repeat(20);
    let said = stage.device.call(&["anchor", "--accept", &nowhere]);
    assert!(said.status.success(), "it is only asked for: {said:?}");
    let status = stage.device.wait("refused", 20, |status| !refused_as("Rewound")(status));
    println!("{}", condition(&status, "Verified").expect("a reason"));
    never("it is taken", Duration::from_secs(2), || stage.page() != "one\n");

    let said = stage.device.call(&["anchor", "--accept", &second]);
    assert!(said.status.success(), "{said:?}");
    let status = stage.device.wait_steady(&second, 20);
    assert_eq!(stage.page(), "newer\n");
    assert!(condition(&status, "Verified").is_none(), "{status:#}");

    // From here on it is the accepted one: neither the old history nor what lies before it.
    for back in [&first, &root] {
        stage.repo.git(&["reset", "-q", "--hard", back]);
        stage.repo.push(&stage.forge.url(), true);
        stage.device.kill();
        stage.device.start();
        stage.device.wait("refused", 20, refused_as("Rewound"));
        never("it goes back", Duration::from_secs(1), || stage.page() != "newer\n");
    }
    // Not even by the operator's word for one commit and the host's for another.
    let said = stage.device.call(&["anchor", "--accept", &second]);
    assert!(said.status.success(), "{said:?}");
    never("it goes back", Duration::from_secs(3), || stage.page() != "newer\n");
}
