//! Two Pods of one name: a node that was lost still runs the one, another node the next.

use jiff::Timestamp;
use testbed::Signal;

use super::contender::{Guise, SHORT};
use super::ground::{Ground, Rights};

#[test]
fn a_namesake_is_a_stranger() {
    Ground::campaign_of(
        "same POD_NAME, other POD_UID",
        SHORT,
        Rights::All,
        None,
        async |ground| {
            let twin = || Guise {
                identity: Some("twin".into()),
                ..Guise::default()
            };
            let first = ground.group.add(twin()).await;
            assert_eq!(ground.leader().await, first);
            let begun = ground.inject();
            let second = ground.group.add(twin()).await;
            tokio::time::sleep(3 * SHORT.duration).await;
            let led: Vec<_> = ground.leaders_since(begun).into_iter().collect();
            assert_eq!(
                led,
                std::slice::from_ref(&first),
                "a name is no reason to take a lease over"
            );

            let stopped = ground.inject();
            ground.group.kill(&first, Signal::Stop);
            let (_, taken) = ground.successor(&first, stopped).await;
            let waited = ground.waited(&first, taken);
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after it was renewed"
            );
            ground.group.kill(&first, Signal::Cont);
            assert_eq!(
                ground.exit_code(&first).await,
                Some(1),
                "the record under its name is not its own"
            );

            let third = ground.group.add(twin()).await;
            tokio::time::sleep(SHORT.duration).await;
            let killed = ground.inject();
            ground.group.kill(&second, Signal::Kill);
            let (next, taken) = ground.successor(&second, killed).await;
            assert_eq!(next, third);
            let waited = ground.waited(&second, taken);
            assert!(
                waited >= 3.0,
                "the lease was taken over {waited} s after it was renewed"
            );

            let fourth = ground.group.add(twin()).await;
            tokio::time::sleep(SHORT.duration).await;
            let asked = ground.inject();
            ground.group.kill(&third, Signal::Term);
            assert_eq!(ground.successor(&third, asked).await.0, fourth);
            assert_eq!(ground.exit_code(&third).await, Some(0));
            ground.leader_since(Timestamp::now()).await;
        },
    );
}
