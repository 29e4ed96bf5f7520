//! The REST API: writes that are waited for, and errors as problem details.

use anyhow::{Result, ensure};
use common::schema::{Basis, SiteAttackVerdict::Clear};
use e2e::{PATIENCE, api::Set, story, until};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::report;

const SITE: &str = "shop.example.com/a b+c?";

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sets_clears_and_deletes_through_any_instance() -> Result<()> {
    story("rest", async |app| {
        let flags = [("quorum", "1"), ("freshness", "1h")];
        let a = app.state_service("a", &flags)?;
        let b = app.state_service("b", &flags)?;
        a.ready().await?;
        b.ready().await?;
        app.topics()?
            .report(&report(SITE, "waf-1", Clear, 1))
            .await?;
        let (a, b) = (a.api().await?, b.api().await?);
        let look = async || Ok(a.get(SITE).await?.map(|s| s.verdict));
        until("the report counts", PATIENCE, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;

        // What has been applied can be read, at either instance.
        let set = Set {
            verdict: "UNDER_ATTACK",
            operator: Some("ops"),
            note: Some("drill"),
            ..Set::default()
        };
        a.set(SITE, &set).await?;
        for api in [&a, &b] {
            let state = api.state(SITE).await?;
            ensure!(state.verdict == "UNDER_ATTACK" && state.basis == Basis::Override);
            ensure!(
                state
                    .override_
                    .is_some_and(|o| o.note.as_deref() == Some("drill"))
            );
        }
        b.clear(SITE).await?;
        ensure!(a.state(SITE).await?.verdict == "CLEAR");
        a.set(
            SITE,
            &Set {
                expires_in: Some("300ms"),
                ..set
            },
        )
        .await?;
        let look = async || Ok(b.state(SITE).await?.verdict);
        until("the override expires", PATIENCE, look, |v| v == "CLEAR").await?;
        b.delete(SITE).await?;
        ensure!(a.get(SITE).await?.is_none() && b.get(SITE).await?.is_none());
        let states = app.topics()?.states_of(SITE).await?;
        ensure!(
            states.last() == Some(&None),
            "the last record is a tombstone"
        );

        // Without waiting, the position can be waited for by a read.
        let path = "/v1/objects/quiet.example.com";
        let body = json!({"verdict": "CLEAR"});
        let answer = a.request(Method::PUT, path, Some(&body)).await?;
        ensure!(answer.status == StatusCode::ACCEPTED, "{answer:?}");
        let position = answer.body["position"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let at = format!("{path}?at_least={position}&wait=10s");
        let answer = b.request(Method::GET, &at, None).await?;
        ensure!(answer.body["verdict"] == "CLEAR", "{answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_answered_with_problem_details() -> Result<()> {
    story("problems", async |app| {
        let service = app.state_service("a", &[])?;
        service.ready().await?;
        let api = service.api().await?;
        let long = format!("/v1/objects/{}", "x".repeat(513));
        let put = |body| (Method::PUT, "/v1/objects/site", Some(body));
        let get = |path| (Method::GET, path, None);
        let cases = [
            (get("/v1/objects/unknown.example.com"), 404),
            (get("/v1/nothing"), 404),
            (get(&long), 400),
            (get("/v1/objects/%ff"), 400),
            (get("/v1/objects/site?at_least=x"), 400),
            (get("/v1/objects?limit=many"), 400),
            (get("/v1/objects?unknown=1"), 400),
            ((Method::POST, "/v1/objects", None), 405),
            (put(json!({"verdict": "ON_FIRE"})), 422),
            (put(json!({"verdict": "CLEAR", "expires_in": "soon"})), 400),
            (put(json!({"verdict": "CLEAR", "until": 1})), 422),
            (put(json!([])), 422),
            ((Method::DELETE, "/v1/objects/site?wait=forever", None), 400),
        ];
        for ((method, path, body), expected) in cases {
            let answer = api.request(method.clone(), path, body.as_ref()).await?;
            let what = format!("{method} {path} {body:?}: {answer:?}");
            ensure!(answer.status.as_u16() == expected, "{what}");
            ensure!(answer.body["status"] == expected, "{what}");
            ensure!(
                answer.body["detail"].as_str().is_some_and(|d| d.len() > 5),
                "{what}"
            );
        }
        ensure!(
            app.topics()?
                .ends(&app.names().reports)
                .await?
                .values()
                .sum::<i64>()
                == 0,
            "nothing was written"
        );
        let live = api.request(Method::GET, "/livez", None).await?;
        ensure!(live.status == StatusCode::OK);
        Ok(())
    })
    .await
}
