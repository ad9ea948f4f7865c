-- Alfred as the authorization server of MCP clients. Nothing here belongs to a tenant: programs register before anybody has
-- signed in, and a code belongs to a person. The role that serves requests has no right on any of it.

-- Programs that registered themselves (RFC 7591). Those that publish a document about themselves are not stored.
create table oauth_clients (
  id text primary key,
  name text not null,
  redirect_uris text[] not null,
  created_at timestamptz not null default now(),
  -- When somebody last let it in; one that nobody lets in is forgotten.
  last_used_at timestamptz not null default now(),
  constraint oauth_clients_redirect_uris check (cardinality(redirect_uris) between 1 and 20)
);
create index oauth_clients_by_use on oauth_clients (last_used_at);

-- Codes that were given to a program and are exchanged for tokens, once, within a minute. Kept for a day, so that one
-- that is shown again is known.
create table oauth_codes (
  code_hash bytea primary key,
  client_id text not null,
  user_id uuid not null references users (id),
  redirect_uri text not null,
  challenge text not null,
  scopes text[] not null,
  audience text not null,
  expires_at timestamptz not null,
  used_at timestamptz,
  -- The sign-in that the code became, which ends when the code is shown again.
  sign_in uuid,
  shown_again boolean not null default false
);
create index oauth_codes_by_expiry on oauth_codes (expires_at);

alter table oauth_clients enable row level security;
alter table oauth_clients force row level security;
alter table oauth_codes enable row level security;
alter table oauth_codes force row level security;
create policy oauth_clients_of_engine on oauth_clients to alfred_engine using (true) with check (true);
create policy oauth_codes_of_engine on oauth_codes to alfred_engine using (true) with check (true);
grant select, insert, update, delete on oauth_clients, oauth_codes to alfred_engine;
