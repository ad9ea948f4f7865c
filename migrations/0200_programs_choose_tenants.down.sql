alter table sign_ins drop column chosen_tenant;
alter table oauth_codes drop column chosen_tenant;
