drop function connections_forget(uuid);
drop function oauth_flow_owner(uuid, bytea, bytea);
drop view notion_connections;
drop table oauth_flows, oauth_registrations, connections;
