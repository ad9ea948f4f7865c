-- Whether several deliveries go to an agent in one request.
alter table agents add column accepts_batches boolean not null default false;
