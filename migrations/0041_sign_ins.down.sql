drop table sign_in_buckets;
drop table sign_ins;
drop table user_passwords;
