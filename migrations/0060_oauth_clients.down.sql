drop table oauth_codes;
drop table oauth_clients;
