drop function agent_condition_holds(jsonb, jsonb);
alter table agents
  drop column permission_level,
  drop column permissions_required,
  drop column permissions_optional,
  drop column permissions_forbidden,
  drop column condition;
