-- The roles stay: they belong to the cluster and other databases may use them.
drop function current_is_admin();
drop function current_app_user();
drop function current_tenant();
revoke create on schema public from alfred_engine;
revoke usage on schema public from alfred_app, alfred_engine;
