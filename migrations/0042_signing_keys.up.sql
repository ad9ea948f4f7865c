-- The keys that access tokens are signed with. A key is published before it signs, and for as long after as a token of
-- it may be good. The private half is sealed under a key that the database does not have.
create table signing_keys (
  kid text primary key,
  public_key bytea not null,
  sealed_private_key text not null,
  created_at timestamptz not null default now(),
  signs_from timestamptz not null,
  -- When it is published no more; null until the next key signs.
  ends_at timestamptz
);
alter table signing_keys enable row level security;
alter table signing_keys force row level security;
create policy signing_keys_of_engine on signing_keys to alfred_engine using (true) with check (true);
grant select, insert, update, delete on signing_keys to alfred_engine;
