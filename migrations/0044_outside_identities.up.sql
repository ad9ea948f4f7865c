-- Users of an outside issuer, made when they are first seen. They are who issuer and subject say; an address never makes
-- two of them one.
create table outside_identities (
  issuer text not null,
  subject text not null,
  user_id uuid not null references users (id),
  -- As the issuer claimed it at first sight; whether it is trusted stands in users.
  claimed_email text,
  created_at timestamptz not null default now(),
  primary key (issuer, subject)
);
create index outside_identities_by_user on outside_identities (user_id);
alter table outside_identities enable row level security;
alter table outside_identities force row level security;
create policy outside_identities_of_engine on outside_identities to alfred_engine using (true) with check (true);
grant select, insert on outside_identities to alfred_engine;
