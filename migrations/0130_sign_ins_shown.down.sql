update sign_ins set ended_because = 'logout' where ended_because = 'revoked';
alter table sign_ins drop constraint sign_ins_ended_because;
alter table sign_ins add constraint sign_ins_ended_because check (ended_because in ('logout', 'reuse', 'password'));
alter table sign_ins drop column user_agent;
alter table sign_ins drop column address;
