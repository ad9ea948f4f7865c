-- In which tenant a program acts that a person let in: the person chooses it on the page that asks them. Null is the one that
-- they act in when they name none. It is a wish, not a right: the membership is looked at with each request.
alter table oauth_codes add column chosen_tenant uuid;
alter table sign_ins add column chosen_tenant uuid;
