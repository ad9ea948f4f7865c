//! The api's tenant queries through pgbouncer in transaction mode: whoever gets a server connection next sees nothing of
//! whose transaction it served before. LISTEN, the engine and migrations connect directly.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use shared::testing::TestDb;

use super::{provision, start};
use crate::app::{TestApp, say};

/// A pgbouncer of its own, gone with this value.
struct Pooler {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Pooler {
    /// None where pgbouncer is not installed.
    async fn start(db: &TestDb, connections: usize) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())?;
        let server = reqwest::Url::parse(&db.admin_url).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("pooler-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let ini = folder.join("pgbouncer.ini");
        // Root's pgbouncer becomes another account, which has to read this.
        let account = if folder.metadata().is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0) {
            "user = nobody\n"
        } else {
            ""
        };
        let text = format!(
            "[databases]\n\
             pooled = host={} port={} dbname={} user={} password={} connect_query='set role alfred_app'\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 200\n\
             ignore_startup_parameters = extra_float_digits,options\n{account}",
            server.host_str().unwrap(),
            server.port().unwrap(),
            db.name,
            server.username(),
            server.password().unwrap_or_default(),
        );
        std::fs::write(&ini, text).unwrap();
        for (path, mode) in [(&folder, 0o755), (&ini, 0o644)] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let process =
            Command::new(program).arg(&ini).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Self { process, folder, port };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "pgbouncer did not start");
            tokio::task::yield_now().await;
        }
        Some(pooler)
    }

    /// Without prepared statements, which a pooled connection does not keep.
    fn url(&self) -> String {
        format!("postgresql://alfred_app@127.0.0.1:{}/pooled?statement-cache-capacity=0", self.port)
    }
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "what is left out is told")]
async fn tenants_stay_apart_on_connections_that_they_share() {
    let direct = start(|_| ()).await;
    let Some(pooler) = Pooler::start(&direct.db, 2).await else {
        assert!(std::env::var_os("CI").is_none(), "pgbouncer is not installed");
        eprintln!("skipped: pgbouncer is not installed");
        return;
    };
    let app = direct.beside(|config| config.db_url = pooler.url().into()).await;
    let mut tenants = Vec::new();
    for n in 0..4 {
        tenants.push(provision(&app, &format!("tenant{n}")).await);
    }
    // Many at once over two server connections.
    let work = (0..80).map(|n| {
        let (app, tenant) = (&app, &tenants[n % 4]);
        async move {
            let posted = app.post(&tenant.admin_key, "/chat", &say(&format!("word{}", n % 4))).await;
            assert_eq!(posted.status, StatusCode::ACCEPTED, "{posted:?}");
            let job = posted.json()["jobId"].as_str().unwrap().to_owned();
            let prompt = json!({"systemPrompt": format!("prompt{}", n % 4)});
            let set = app.send_json(&tenant.admin_key, Method::PUT, "/admin/settings", &prompt).await;
            assert_eq!(set.status, StatusCode::OK, "{set:?}");
            let sessions = app.get(&tenant.admin_key, "/sessions?limit=100").await;
            assert_eq!(sessions.status, StatusCode::OK, "{sessions:?}");
            (n % 4, job)
        }
    });
    let jobs: Vec<(usize, String)> = futures::future::join_all(work).await;
    for (n, tenant) in tenants.iter().enumerate() {
        let sessions: Value = app.get(&tenant.admin_key, "/sessions?limit=100").await.json();
        assert_eq!(sessions["sessions"].as_array().unwrap().len(), 20, "{sessions}");
        let settings = app.get(&tenant.admin_key, "/admin/settings").await.json();
        assert_eq!(settings, json!({"systemPrompt": format!("prompt{n}")}));
    }
    let looks = jobs.iter().flat_map(|(n, job)| {
        let (app, tenants) = (&app, &tenants);
        tenants.iter().enumerate().map(move |(m, tenant)| async move {
            let status = app.get(&tenant.admin_key, &format!("/jobs/{job}")).await.status;
            assert_eq!(status == StatusCode::OK, m == *n, "{job} of {n} for {m}: {status}");
            assert!(status == StatusCode::OK || status == StatusCode::NOT_FOUND);
        })
    });
    futures::future::join_all(looks).await;
    // A transaction that nobody gave an identity sees nothing, whoever was there before it.
    let pool =
        shared::db::pool(shared::db::options(&pooler.url(), shared::db::DbRole::App, "test").unwrap(), 4);
    for _ in 0..10 {
        let mut tx = shared::db::before_tenant(&pool).await.unwrap();
        let seen: i64 = sqlx::query_scalar("select count(*) from items").fetch_one(&mut *tx).await.unwrap();
        assert_eq!(seen, 0);
        let tenant: String =
            sqlx::query_scalar("select coalesce(current_setting('app.tenant_id', true), '')")
                .fetch_one(&mut *tx)
                .await
                .unwrap();
        assert_eq!(tenant, "");
    }
    stop(app).await;
}

/// The api lets go of the pooler before it ends.
async fn stop(app: TestApp) {
    app.running.stop().await;
}
