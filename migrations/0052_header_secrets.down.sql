drop function tenancy_of_host(text);
drop function tenancy_header_secrets(uuid, uuid[]);
drop table tenant_hosts, tenant_header_secrets;
