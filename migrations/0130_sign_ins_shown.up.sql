-- What people recognise their sign-ins by when they look which there are, and one more way for one to end.
alter table sign_ins add column address text;
alter table sign_ins add column user_agent text;
alter table sign_ins drop constraint sign_ins_ended_because;
alter table sign_ins add constraint sign_ins_ended_because check (ended_because in ('logout', 'reuse', 'password', 'revoked'));
