-- Sign-in with a password. Nothing here belongs to a tenant, and the role that serves requests has no right on any of it:
-- the engine's does, on the pool that the api keeps for who calls.

create table user_passwords (
  user_id uuid primary key references users (id),
  -- argon2id, in the format of the password hashing competition: it carries its own salt and cost.
  hash text not null,
  updated_at timestamptz not null default now()
);

-- One row from login to logout: the family of refresh tokens that come from that login, or a browser's cookie session.
-- No token is stored, nor a hash of one: tokens are HMACs of id, nonce and generation, under a key that the database does
-- not have.
create table sign_ins (
  id uuid primary key,
  user_id uuid not null references users (id),
  kind text not null,
  nonce bytea not null,
  -- Which refresh token of the family is the good one, and since when.
  generation bigint not null default 1,
  rotated_at timestamptz not null default now(),
  -- What the tokens may be used for; null is everything. For tokens made for somebody else's program.
  scopes text[],
  audience text,
  client_id text,
  created_at timestamptz not null default now(),
  last_used_at timestamptz not null default now(),
  expires_at timestamptz not null,
  ended_at timestamptz,
  ended_because text,
  constraint sign_ins_kind check (kind in ('token', 'cookie')),
  constraint sign_ins_ended check ((ended_at is null) = (ended_because is null)),
  constraint sign_ins_ended_because check (ended_because in ('logout', 'reuse', 'password'))
);
create index sign_ins_by_user on sign_ins (user_id) where ended_at is null;
create index sign_ins_by_expiry on sign_ins (expires_at);

-- How full the buckets are that login attempts drip into; what drips out in time makes room again.
create table sign_in_buckets (
  -- A hash of what is counted: an address, an account, or the two together.
  key bytea primary key,
  level double precision not null,
  capacity double precision not null,
  leak_per_second double precision not null,
  at timestamptz not null,
  -- Null when the last attempt found room; otherwise when the next one will.
  full_until timestamptz
);
create index sign_in_buckets_by_age on sign_in_buckets (at);

alter table user_passwords enable row level security;
alter table user_passwords force row level security;
alter table sign_ins enable row level security;
alter table sign_ins force row level security;
alter table sign_in_buckets enable row level security;
alter table sign_in_buckets force row level security;
create policy user_passwords_of_engine on user_passwords to alfred_engine using (true) with check (true);
create policy sign_ins_of_engine on sign_ins to alfred_engine using (true) with check (true);
create policy sign_in_buckets_of_engine on sign_in_buckets to alfred_engine using (true) with check (true);
grant select, insert, update, delete on user_passwords, sign_ins, sign_in_buckets to alfred_engine;
