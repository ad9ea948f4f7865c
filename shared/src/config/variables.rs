//! Every environment variable there is, with its default and what it means. `.env.example` is this list written out.

/// One variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What holds when it is unset or empty; empty when there is no fixed value.
    pub default: &'static str,
    /// What it is for, its unit, and when it must be set.
    pub comment: &'static str,
}

/// Variables under a heading.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// The heading in `.env.example`.
    pub heading: &'static str,
    /// The variables, in reading order.
    pub variables: &'static [Variable],
}

macro_rules! groups {
    ($($heading:literal { $($name:ident = $default:literal, $comment:literal;)* })*) => {
        /// The list.
        pub const GROUPS: &[Group] = &[$(Group {
            heading: $heading,
            variables: &[$(Variable { name: stringify!($name), default: $default, comment: $comment },)*],
        },)*];
    };
}

groups! {
    "The process" {
        APP_ENV = "dev", "dev, test or prod. prod reads no .env file and refuses development secrets.";
        APP_HOST = "", "The address to listen on. Unset: 127.0.0.1 in dev and test, 0.0.0.0 in prod.";
        APP_PORT = "8080", "The port of the api; 0 takes a free one.";
        PUBLIC_URL = "", "Where clients reach the api. Unset: http://localhost:APP_PORT. An https URL switches HSTS on.";
        CORS_ORIGINS = "", "Browser origins that may call the api, separated by commas. Unset: all of them in dev and test, none in prod.";
        TRUSTED_PROXIES = "", "Addresses and networks (10.0.0.0/8) of proxies, separated by commas: what they say in X-Forwarded-For is believed. Unset: nobody's.";
        RATE_LIMIT_PER_MINUTE = "600", "Requests that a credential, or an address without one, may make each minute; 0 is no limit. Each api process counts by itself.";
        RATE_LIMIT_CHAT_PER_MINUTE = "60", "Those of them that make a chat turn.";
        RATE_LIMIT_ADDRESS_PER_MINUTE = "6000", "Requests from one address (or IPv6 /64), with all its credentials together.";
        RATE_LIMIT_ADDRESS_CHAT_PER_MINUTE = "600", "Those of them that make a chat turn.";
        RATE_LIMIT_AGENT_PER_MINUTE = "600", "Requests that an agent may make each minute, with all its sessions together; 0 is no limit.";
        OUTBOUND_ALLOW = "", "What lies inside and may be asked although somebody else named it, also without TLS: hosts, host:port, addresses or networks such as 10.0.0.0/8, separated by commas. In dev this machine always may.";
        MAX_BODY_BYTES = "1048576", "The largest request body, in bytes.";
        LOG_LEVEL = "info", "error, warn, info, debug or trace, or directives such as info,sqlx=debug.";
        DRAIN_SECONDS = "20", "How long a process that was told to stop waits for what it is doing.";
    }
    "Secrets" {
        API_KEY = "alfred-development-key", "The key of the default tenant's first user, 16 characters or more (32 in prod, where there is no default and keys may live in the database alone).";
        FERNET_KEY = "", "Keys that encrypt stored credentials, newest first, separated by commas: 32 bytes each, base64 with - and _. Required in prod; otherwise a fixed development key.";
        DEFAULT_TENANT_ID = "", "The uuid of the tenant that API_KEY belongs to, and that users without a membership share. Unset: a fixed one.";
    }
    "Signing in" {
        REGISTRATION = "on", "off: nobody can make an account with POST /api/v1/auth/register.";
        ACCESS_TOKEN_SECONDS = "900", "How long an access token is good.";
        SIGN_IN_IDLE_DAYS = "30", "A sign-in that was not used for so long ends: no refresh, or no request of the browser.";
        PASSWORD_HASH_MEMORY_KIB = "19456", "The memory of one argon2id hash. A password is hashed anew at its next use when this or the passes change.";
        PASSWORD_HASH_PASSES = "2", "The passes of argon2id over that memory.";
        PASSWORD_HASH_AT_ONCE = "2", "How many hashes a process computes at once; others wait in line.";
        JWT_ISSUER = "", "Another issuer whose tokens count: the iss of its tokens. Needs one of the next three's keys.";
        JWT_AUDIENCE = "", "The aud that its tokens for this deployment have. Unset: not asked, and tokens that it made for others count too.";
        JWT_JWKS_URL = "", "Where it publishes its keys: https, or http on this machine.";
        JWT_HS256_SECRET = "", "What it signs with instead, when it shares a secret: 32 characters or more.";
        JWT_JWKS_PAUSE_SECONDS = "10", "The least time between two looks at its keys.";
    }
    "Tenants" {
        TENANT_HEADER_SECRET = "", "When set, requests for tenant data need the headers X-TB-Tenant-ID, X-TB-Timestamp and X-TB-Signature, signed with this or with the tenant's own secret. 16 characters or more, 32 in prod. Cookie sessions are exempt.";
        TENANT_SECRETS_FOLDER = "", "Where the worker writes a tenant's new header secrets, one file a tenant, for whoever signs; the api only has to know that there is a folder. Unset: they are fetched from /admin/tenants/{id}/secrets.";
        WORKOS_API_KEY = "", "Users of the outside issuer get their memberships from the WorkOS API with this key. Unset: from the database.";
        WORKOS_API_URL = "https://api.workos.com", "Where that API is.";
    }
    "Connections" {
        FEATURE_NOTION_HOSTED_MCP = "off", "on (or true): people can connect Notion's own MCP server.";
        NOTION_MCP_URL = "https://mcp.notion.com/mcp", "Where that server is.";
        FEATURE_NOTION_SELF_HOST_FALLBACK = "off", "on (or true): people can connect Notion through a self-hosted MCP server too. Needs its address, and the integration's id and secret.";
        NOTION_SELF_HOST_URL = "", "Where the self-hosted Notion MCP server is.";
        NOTION_SELF_HOST_TOKEN = "", "The token that it wants of its clients. Unset: none.";
        NOTION_CLIENT_ID = "", "The integration that is registered with Notion: its OAuth client id.";
        NOTION_CLIENT_SECRET = "", "Its OAuth client secret.";
        NOTION_REDIRECT_URI = "", "Its redirect URI. Unset: PUBLIC_URL/oauth/notion-self-hosted/callback.";
        NOTION_API_URL = "https://api.notion.com", "Where Notion's API is.";
        OAUTH_TIMEOUT_SECONDS = "10", "How long an authorization server has to answer.";
    }
    "Agents" {
        MCP_AGENT_NOTIFICATION_ENABLED = "on", "off: agents are told of nothing; what happens meanwhile is dead after a day. true and false are taken as well.";
        MCP_NOTIFICATION_TIMEOUT = "5.0", "Seconds that an agent may take to answer a delivery.";
        MCP_MAX_RETRY_ATTEMPTS = "3", "How often a delivery is tried again after the first time; then it is dead.";
        AGENT_RETRY_BASE_MS = "1000", "The pause before the first such retry; it doubles each time.";
        AGENT_JWT_SECRET_KEY = "", "What tokens for agents are signed with, 32 characters or more. Unset: the first FERNET_KEY.";
        AGENT_TOKEN_EXPIRE_MINUTES = "60", "How long an agent's token for its own requests is good; 1 to 1440.";
        CONTEXT_INACTIVE_DAYS = "180", "After so many days without anything done by a user, what agents may know of them is emptied; 1 to 365.";
        TECHNICAL_ANALYSIS_AGENT_ENDPOINT = "", "Registers the agent technical_analysis in the default tenant, such as http://127.0.0.1:8003.";
        PORTFOLIO_OPTIMIZATION_AGENT_ENDPOINT = "", "The same of portfolio_optimization, such as http://127.0.0.1:8004.";
        RISK_MANAGEMENT_AGENT_ENDPOINT = "", "The same of risk_management, such as http://127.0.0.1:8005.";
        NEWS_ANALYSIS_AGENT_ENDPOINT = "", "The same of news_analysis, such as http://127.0.0.1:8006.";
        USER_PREFERENCE_AGENT_ENDPOINT = "", "The same of user_preference, such as http://127.0.0.1:8007.";
        REDIS_STREAMS_ENABLED = "false", "true: workers append events about users to a Redis stream as well, for consumers that read one.";
        REDIS_URL = "", "redis:// or rediss://, with user and password if it has them.";
        REDIS_STREAM_MAX_LENGTH = "10000", "About so many events are kept in it.";
        REDIS_CONSUMER_GROUP = "stockpulse_agents", "A group of consumers that is made when it is not there.";
    }
    "PostgreSQL" {
        DB_URL = "", "Required. Requests run on it under row-level security. postgresql+driver:// is accepted; a login that is not alfred_app takes that role on.";
        DB_ENGINE_URL = "", "Scheduling across tenants, as alfred_engine: a direct connection, no transaction pooler. Unset: DB_URL.";
        DB_OWNER_URL = "", "Migrations: a role that owns the database. Unset: DB_URL.";
        DB_LISTEN_URL = "", "LISTEN: a direct session connection to the primary. Unset: DB_ENGINE_URL.";
        DB_POOL_MAX = "16", "The most connections of each pool of a process.";
    }
    "Language models" {
        MODEL_PROVIDER = "", "anthropic, openai, openai-compatible or offline. Unset: the first with a key, else offline.";
        MODEL_NAME = "", "The provider's name of the model. Unset: the provider's default; required for openai-compatible.";
        MODEL_BASE_URL = "", "Another address of the provider; required for openai-compatible.";
        MODEL_FALLBACKS = "", "Tried in order when the model fails: provider:model, separated by commas.";
        ANTHROPIC_API_KEY = "", "The key of Anthropic's API.";
        OPENAI_API_KEY = "", "The key of OpenAI's API, also sent to an openai-compatible server.";
        MODEL_IDLE_TIMEOUT_SECONDS = "60", "How long a provider may stay silent before its stream counts as stalled.";
        MODEL_RETRIES = "3", "How often a failed model call is made again before the next fallback.";
        MODEL_RETRY_BASE_MS = "500", "The first pause before such a retry; it doubles each time.";
        MODEL_OFFLINE_DELAY_MS = "15", "The pause before each word of the offline model.";
        CONTEXT_BUDGET_TOKENS = "128000", "The size of the model's context: history is cut to fit it, and 80 % of it brings a warning.";
    }
    "Token thrift" {
        TOKEN_THRIFT = "on", "off sends a model everything every time and marks nothing for the provider's cache: for comparisons.";
        MODEL_RESULT_BYTES = "49152", "The most of one tool result that a model is sent in the turn that called the tool; all of it is stored.";
        MODEL_OLD_RESULT_BYTES = "8192", "The same in later turns.";
        TOOLS_ON_DEMAND_ABOVE = "64", "With more tools than this a model is offered a few of them and search_tools, which finds the others.";
        HISTORY_COMPACT_ABOVE_TOKENS = "24000", "When a conversation's history is longer than this, its old turns become a summary in what a model is sent; 0 never does that.";
    }
    "The cache of tool results" {
        CACHE_BACKEND = "postgres", "postgres (with a small tier in each process's memory) or memory (each process for itself).";
        CACHE_MEMORY_BYTES = "16777216", "The most that a process holds in its memory, in bytes.";
        CACHE_DEFAULT_TTL_SECONDS = "14400", "How long an answer is good when nothing else says so.";
        CACHE_NOTION_PAGE_TTL_SECONDS = "86400", "The same of a Notion page that was edited in the 24 hours before it was read; an older one has the default.";
        CACHE_NOTION_SEARCH_TTL_SECONDS = "14400", "The same of a Notion search.";
    }
    "Search by meaning" {
        EMBEDDING_PROVIDER = "", "openai or openai-compatible (the /embeddings of Ollama, vLLM, LM Studio and others): items are searched by meaning as well, and their text is sent there. Unset: off.";
        EMBEDDING_BASE_URL = "", "Where it is. Required with openai-compatible.";
        EMBEDDING_MODEL = "", "Unset: text-embedding-3-small for openai; required with openai-compatible. Another model embeds all items again.";
        EMBEDDING_DIMENSIONS = "", "Asked of the model; unset leaves it to the model.";
        EMBEDDING_API_KEY = "", "Unset: OPENAI_API_KEY for openai, none for openai-compatible.";
    }
    "Remote MCP servers" {
        MCP_SERVERS_FILE = "", "A TOML file of MCP servers that every tenant may use; see docs/remote-servers.md. Unset: none.";
        MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD = "5", "After so many failures in a row a server is left alone for a while.";
        MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT = "30", "For so many seconds; then one call tries it.";
        MCP_CONNECT_TIMEOUT_SECONDS = "2", "How long connecting to a server may take.";
        MCP_READ_TIMEOUT_SECONDS = "10", "How long a server may be silent before a call counts as failed; progress that it reports counts as a word.";
    }
    "Turns" {
        WORKER_METRICS_PORT = "", "Where a worker answers GET /metrics and /healthz, on APP_HOST; the next of 32 ports when others have it, so all workers of a machine may be given the same. Unset: nowhere.";
        WORKER_CONCURRENCY = "1000", "The most turns that one worker process runs at once.";
        TENANT_RUNNING_TURNS = "64", "The most turns of one tenant that run at once; read when the tenant is made.";
        TURN_LEASE_SECONDS = "10", "A worker that was not heard of for so long is dead, and its turns go to others. Its heartbeat is a fifth of this.";
        TURN_MAX_ATTEMPTS = "3", "How many failed attempts make a turn dead.";
        TURN_RETRY_BASE_MS = "1000", "The pause before the second attempt; it doubles each time.";
        TURN_MAX_STEPS = "16", "The most model replies in one turn.";
        TURN_TIME_BUDGET_SECONDS = "600", "The most time that a turn may run, over all its attempts; waiting in line or for a person does not count.";
        TURN_TOKEN_BUDGET = "200000", "The most tokens, input and output together, that a turn may use.";
        TURN_COST_BUDGET_MICROS = "0", "The most that a turn may cost, in millionths of a dollar; 0 is no limit.";
        APPROVAL_TIMEOUT_SECONDS = "3600", "How long a tool call waits for a person; after that it counts as denied.";
        SESSION_IDLE_DAYS = "7", "A session that was not used for so long ends.";
    }
    "Streams" {
        STREAM_KEEPALIVE_SECONDS = "15", "How long a stream stays silent before a keepalive comment.";
        STREAM_HOLD_SECONDS = "10", "How long a stream's request waits for a database that is away before it is closed without an answer.";
    }
    "Tests only" {
        TURN_SWEEP = "on", "off keeps a worker from sweeping, to show that the fast paths alone are right. Needs APP_ENV=test.";
        ALFRED_FAILPOINT = "", "A place where a worker aborts, stops or pauses, written name[:n]=abort, name[:n]=stop or name[:n]=pause:MILLISECONDS. Needs APP_ENV=test.";
    }
    "Scripts only" {
        WORKERS = "2", "How many worker processes scripts/run starts.";
        ALFRED_HOME = ".alfred", "Where scripts/run keeps its database, logs and development secrets.";
    }
}

/// The default of a variable.
pub(super) fn default_of(name: &str) -> Option<&'static str> {
    GROUPS.iter().flat_map(|group| group.variables).find(|variable| variable.name == name).map(|v| v.default)
}

/// The text of `.env.example`.
#[must_use]
pub fn env_example() -> String {
    let mut text = String::from(
        "# Every variable, with its default; an empty value counts as unset. Copy to .env, which is read unless\n\
         # APP_ENV=prod, and change what you need. What the environment itself says wins.\n",
    );
    for group in GROUPS {
        text.push_str("\n# --- ");
        text.push_str(group.heading);
        text.push('\n');
        for variable in group.variables {
            for line in wrap(variable.comment) {
                text.push_str("# ");
                text.push_str(&line);
                text.push('\n');
            }
            text.push_str(variable.name);
            text.push('=');
            text.push_str(variable.default);
            text.push('\n');
        }
    }
    text
}

fn wrap(comment: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in comment.split(' ') {
        if lines.last().is_some_and(|line| line.len() + word.len() > 108) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
